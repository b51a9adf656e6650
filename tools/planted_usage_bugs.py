"""Bugs of usage records: how they are read, kept and stored; as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_READERS = ("tests/gateway/usage/test_readers.py",)
_OPTION = ("tests/gateway/usage/test_stream_option.py", "tests/gateway/proxy/test_include_usage.py")
_SPOOL = ("tests/gateway/usage/test_spool.py",)
_SERVED = ("tests/gateway/proxy/test_usage.py",)
_STORE = ("tests/gateway/control/store/test_usage.py",)
_REQUESTS = ("tests/gateway/usage/test_request_reader.py",)
_BODIES = ("tests/gateway/proxy/test_recorded_bodies.py",)
_JOURNAL = "gateway/usage/_journal.py"

USAGE_BUGS: tuple[Bug, ...] = (
    bug(
        "the end of a line is lost between two pieces", _READERS,
        "gateway/usage/_event_reader.py:EventReader.feed",
        "self._go_on(last)", "pass",
    ),
    bug(
        "a line without an end grows in memory", _READERS,
        "gateway/usage/_event_reader.py:EventReader._go_on",
        "if len(self._line) <= MAX_DECODED_BYTES:", "if True:",
    ),
    bug(
        "an escaped quote ends a string", _READERS,
        "gateway/usage/_scanner.py:Scanner._pass_string",
        "if not is_escaped:", "if True:",
    ),
    bug(
        "a count before a tab is lost", _READERS,
        "gateway/usage/_scanner.py:Scanner.feed", "b' \\t", "b' ",
    ),
    bug(
        "an answer of very many small objects holds the program up", _READERS,
        "gateway/usage/_scanner.py:Scanner.feed", "self._followed += 1", "pass",
    ),
    bug(
        "a number without an end grows in memory", _READERS,
        "gateway/usage/_scanner.py:Scanner._begin_literal",
        "if self._kept is not None and len(self._kept) > _MAX_TOKEN:", "if False:",
    ),
    bug(
        "an event that is no object ends a stream", _OPTION,
        "gateway/usage/_stream_option.py:_is_it", "type(chunk) is dict and ", "",
    ),
    bug(
        "what is held back at the end of a stream is lost", _OPTION,
        "gateway/usage/_stream_option.py:UsageStripper.rest", 'b"" if _is_it(held) else held',
        'b""',
    ),
    bug(
        "what had come of a request is lost where there is no memory to ask it for usage", _OPTION,
        "gateway/proxy/_include_usage.py:receive_asking",
        'received.put_back(b"".join(pieces))', "pass",
    ),
    bug(
        "a stream without its usage has the length that it had with it", _OPTION,
        "gateway/proxy/_stripped_response.py:StrippedResponse.headers",
        ' if one[0] != b"content-length"', "",
    ),
    bug(
        "a compressed answer expands without bound", _READERS,
        "gateway/usage/_reader.py:GzipReader._read",
        "self._zlib.decompress(data, _PIECE)", "self._zlib.decompress(data)",
    ),
    bug(
        "cached tokens are not added to the input", _READERS,
        "gateway/usage/_tokens.py:Findings.result",
        "self.fields.input_without_cached", "False",
    ),
    bug(
        "a message of a socket like the one before has no type", _READERS,
        "gateway/usage/_tokens.py:Findings.take_event",
        'self._event, "", None', 'self._event, "", self._last',
    ),
    bug(
        "a cut answer counts as complete", _READERS,
        "gateway/usage/_tokens.py:Findings.result",
        "self.ended and told", "told",
    ),
    bug(
        "a stored answer is counted again", _SERVED,
        "gateway/proxy/_usage.py:reads_answer",
        "fullmatch", "match",
    ),
    bug(
        "what a client left behind is not counted", _SERVED,
        "gateway/proxy/_recorder.py:Recorder.end",
        "record.take_usage()", "pass",
    ),
    bug(
        "the chunk with the usage reaches a client that did not ask", _OPTION,
        "gateway/usage/_stream_option.py:_is_it",
        'chunk.get("choices") == []', "False",
    ),
    bug(
        "a batch without an answer is given up", _SPOOL,
        "gateway/usage/_spool.py:UsageSpool.send",
        "continue", "pass",
    ),
    bug(
        "a gateway that refuses every request is ready",
        ("tests/gateway/proxy/test_usage_readiness.py",),
        "gateway/proxy/_readiness.py:Readiness.why_not",
        "self._usage_full is not None and self._usage_full()", "False",
    ),
    bug(
        "a full spool grows", _SPOOL,
        "gateway/usage/_spool.py:UsageSpool.add",
        "is_full and not self.refuses", "False",
    ),
    bug(
        "refused requests fill the memory of a gateway that may not drop records", _SPOOL,
        "gateway/usage/_spool.py:UsageSpool.add",
        "self.full and not record.attempts", "False",
    ),
    bug(
        "records are in memory only", _SPOOL, f"{_JOURNAL}:Journal.append",
        "current.append(data)", "True",
    ),
    bug(
        "files of a spool stay for ever", _SPOOL, f"{_JOURNAL}:Journal._do_work",
        "segment.path.unlink(missing_ok=True)", "pass",
    ),
    bug(
        "a torn record is taken for a good one", _SPOOL, f"{_JOURNAL}:_read",
        "zlib.crc32(data) != checksum", "False",
    ),
    bug(
        "records that are done with come back after a kill", _SPOOL,
        f"{_JOURNAL}:_Segment.acknowledge",
        "_ACKNOWLEDGED.pack_into(self.map, 0, _MAGIC, self.acknowledged)", "pass",
    ),
    bug(
        "a record that is sent again changes the one that is kept", _STORE,
        "gateway/control/database/_table.py:Table.insert_new",
        'f"{self._insert} ON CONFLICT ({self._key}) DO NOTHING"',
        'f"{self._insert} {self._on_conflict}"',
    ),
    bug(
        "an odd value keeps a batch out", _STORE,
        "gateway/control/store/_usage_rows.py:_sound",
        "printable(value, _LONGEST)", "value[:_LONGEST]",
    ),
    bug(
        "a gateway can make sums of usage fail", _STORE,
        "gateway/control/store/_usage_rows.py", "10**10", "2**53",
    ),
    bug(
        "what an answer expands to is read in one turn", _READERS,
        "gateway/usage/_reader.py:GzipReader.feed", "self._read(_AT_ONCE)", "self._read(10**9)",
    ),
    bug(
        "the rest of what an answer expands to is not read", _SERVED,
        "gateway/proxy/_forward.py:_read_on", "reader.has_more", "False",
    ),
    bug(
        "an unknown cost is taken for nothing", _SERVED,
        "gateway/proxy/_usage.py:cost_of", "return None", "return 0.0",
    ),
    bug(
        "an unknown cost is stored as nothing", _STORE, "gateway/control/store/_usage_rows.py",
        "None if cost is None else", "0 if cost is None else",
    ),
    bug(
        "the work on a hostile request has no bound", _REQUESTS,
        "gateway/usage/_request_reader.py:RequestReader.feed", "_MAX_STEPS", "10**9",
    ),
    bug(
        "a compressed request is read as JSON", _REQUESTS,
        "gateway/usage/_request_reader.py:is_plain_json",
        'and encoding in (b"", b"identity")', "",
    ),
    bug(
        "prompts of everybody are recorded", _BODIES,
        "gateway/usage/_bodies.py:BodyRecorder._begin",
        "client not in self.clients and self.providers.isdisjoint(providers)", "False",
    ),
    bug(
        "a request's headers are recorded", _BODIES, "gateway/proxy/_forward.py:forward",
        "recording.request.feed(body)", "recording.request.feed(str(headers).encode() + body)",
    ),
    bug(
        "recorded bodies have no bound", _BODIES, "gateway/usage/_bodies.py:KeptBody.feed",
        "min(recorder.max_bytes - self._size, _MAX_TOTAL - recorder._held)", "len(data)",
    ),
    bug(
        "everybody reads the prompts in a body log", ("tests/gateway/commands/test_process.py",),
        "gateway/_usage_sinks.py:make_body_recorder", "private=True", "private=False",
    ),
)  # fmt: skip
