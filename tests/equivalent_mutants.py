"""Mutants of `mutation.py` that change nothing a test could see, each with the reason.

A key is what the program prints after "survived": module, function, operator, and the source before and after.
"""
EQUIVALENT: dict[str, str] = {
    "optim.CosineLR.__call__: sign: 1 + math.cos(math.pi * min(1.0, step / self.total_steps)) -> "
    "1 + math.cos(-(math.pi * min(1.0, step / self.total_steps)))": "the cosine is an even function",
}
