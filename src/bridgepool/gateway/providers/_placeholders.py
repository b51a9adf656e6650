"""Placeholders: values that other tools replace by a variable or a secret, and that are sent as
they stand here; and the quotes that other tools take off. Pure.
"""

import re
from typing import Final

from bridgepool.gateway.providers._fields import VARIABLE_PATTERN

# Whole values, also behind the name of a scheme such as "Bearer". No key of a provider looks like
# one: keys are letters, digits, "-", "_" and ".".
_PLACEHOLDER: Final = re.compile(
    r"(?:[A-Za-z]+ )?(?:"
    + "|".join(
        (
            rf"\${VARIABLE_PATTERN}",  # shells
            rf"%{VARIABLE_PATTERN}%",  # Windows
            r"\$\{.*\}|\$\(.*\)",  # shells, compose files, Kubernetes, GitHub's ${{ }}
            r"\{\{.*\}\}|<%.*%>",  # templates
            rf"\{{\$?{VARIABLE_PATTERN}\}}",  # {NAME}, {$NAME}
            r"\{(?:env|file|secret|secrets)[.:].*\}",  # {env.NAME}, {file:/path}
            r"(?:os\.environ|os\.getenv|process\.env)\b.*",
            r"(?:env|file|secret|vault|op)://.*|env:.*|file:/.*",
            r"<[^<>]*>",  # <your key>
        )
    )
    + ")"
)
_FORMS: Final = "such as $NAME, ${NAME}, os.environ/NAME, {env.NAME} or file:///path"
KEY_IS_PLACEHOLDER: Final = (
    f"has a placeholder ({_FORMS}), which would be sent as the key; "
    "to read a key from a variable of the gateway, name the variable in key_env"
)
"""What is wrong with a key that is one."""
HEADER_IS_PLACEHOLDER: Final = (
    f"({_FORMS}), which would be sent as it stands; give the value itself"
)
"""What is wrong with a header's value that is one, after its name."""
VARIABLE_IS_PLACEHOLDER: Final = f"holds a placeholder ({_FORMS}) that nothing replaced"
"""What is wrong with an environment variable that holds one."""
KEY_IN_QUOTES: Final = "a key in quotes, which would be sent with it; take them out"
"""What a list of keys or an environment variable has or holds; see `is_quoted`."""


def is_quoted(text: str) -> bool:
    """Return whether a key stands in the quotes of a file whose reader kept them."""
    return len(text) > 2 and text[0] == text[-1] and text[0] in "\"'"


def is_placeholder(text: str) -> bool:
    """Return whether a key or header value stands for another value."""
    return _PLACEHOLDER.fullmatch(text) is not None
