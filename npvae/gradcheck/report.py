"""What a gradient check found, tensor by tensor.  Read beside `checker.py`; `diagnosis.py` names the likely slip."""
from dataclasses import dataclass

_MARKS = {"right": "  ", "WRONG": "* ", "UNDECIDED": "? "}


@dataclass(frozen=True)
class TensorReport:
    """One tensor: its largest error, where it is, the two values there, and what the pattern of errors looks like.

    For the directional methods `index` is the number of the direction, and the values are derivatives along it.

    verdict : "right"; "WRONG"; or "UNDECIDED", which is neither: entries lie at a kink of the loss, where every number
        between the slopes on its two sides may be called a derivative, or rounding of the loss hides the error
    zero_bound : more than 0 where the gradient is zero but for rounding: the size up to which a number is called zero
    """

    name: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    vacuous: bool      # the numeric gradient is zero throughout, and so is the analytic one, or it is wrong: no test
    norm_error: float      # |analytic - numeric| / |numeric|, Euclidean norms over the whole tensor
    verdict: str
    tolerance: float      # of `error`: that of central differences where they judge
    kinks: int      # entries where the slopes on the two sides differ, or one side has none
    diagnosis: str
    note: str      # why central differences judge, or nothing does
    zero_bound: float = 0.0

    def __str__(self) -> str:
        notes = [f"looks like: {self.diagnosis}" if self.diagnosis else "",
                 "the numeric gradient is zero throughout: this tests nothing" if self.vacuous else "",
                 f"{'wrong where the gradient is ' * (self.verdict == 'WRONG')}zero up to rounding: the terms that "
                 f"cancel leave up to {self.zero_bound:.1e}" if self.zero_bound else "",
                 f"{self.kinks} entries lie at a kink of the loss, or where it ends: no derivative is right or wrong; "
                 "move the parameters" if self.kinks else "", self.note]
        return (f"{self.name:20s} error {self.error:8.1e} at {str(list(self.index)):12s} "
                f"analytic {self.analytic: .12e}  numeric {self.numeric: .12e}"
                f"{''.join(f'{chr(10)}      {note}' for note in notes if note)}")


@dataclass(frozen=True)
class Report:
    """All tensors against one tolerance, and rules of a backward pass that were broken (`check_pair`)."""

    method: str
    tolerance: float
    tensors: tuple[TensorReport, ...]
    violations: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Every tensor is right and no rule is broken.  What is undecided is not ok: it has not been shown right."""
        return not self.violations and self.verdict == "right"

    @property
    def verdict(self) -> str:
        """On the gradients: "WRONG" if one tensor is, else "UNDECIDED" if one is, else "right"."""
        verdicts = {tensor.verdict for tensor in self.tensors}
        return next((verdict for verdict in ("WRONG", "UNDECIDED") if verdict in verdicts), "right")

    @property
    def worst(self) -> TensorReport:
        """The tensor with the largest error; a wrong one before any that is not."""
        return max(self.tensors, key=lambda tensor: (tensor.verdict == "WRONG", tensor.error))

    @property
    def vacuous(self) -> tuple[str, ...]:
        """The tensors whose numeric gradient is zero throughout."""
        return tuple(tensor.name for tensor in self.tensors if tensor.vacuous)

    def __str__(self) -> str:
        rules = ", rules BROKEN" if self.violations else ""
        lines = [f"gradients {self.verdict}{rules} ({self.method} differences, tolerance {self.tolerance:g})"]
        lines += [f"{_MARKS[tensor.verdict]}{tensor}" for tensor in self.tensors]
        return "\n".join(lines + [f"* {violation}" for violation in self.violations])
