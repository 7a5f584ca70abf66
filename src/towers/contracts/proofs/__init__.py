"""Proof before any data: a module is run on symbolic sizes, and every contract that it meets on the way is decided.

From the bottom up: `ranges` (the sizes that an axis can have), `symbolic_size` (a size as contracts see it),
`symbols` (the sizes of one run, and what torch asked about them), `shape_rules` (operations that torch cannot run on
symbolic sizes), `copies` (the module without its data), `reached` (what its code can write to beside it),
`kinds_of_state` and `outside` (which keep that and put it back), `relations` (conditions between axes), `remainders`
(simpler quotients and remainders of sizes), `symbolic_inputs`,
`symbolic_run` (one symbolic run), `explore` (as many runs as it takes to cover all sizes) and `verdicts`. Then
`trials` runs copies with real tensors, `reality` chooses the sizes, and `settle` compares both. `depends` names what
the code reads beside its arguments. `verify` puts it together, `proof` is the answer as text and as data, and
`time_limit` ends what takes too long.
"""
