"""What clients may: rules, rates and budgets. Knows no sockets and no proxy."""
