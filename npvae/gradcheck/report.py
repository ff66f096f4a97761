"""The results of a gradient check, tensor by tensor.  Read after `checker.py`."""
from dataclasses import dataclass

_MARKS = {"right": "  ", "WRONG": "* ", "UNDECIDED": "? "}


@dataclass(frozen=True)
class TensorReport:
    """One tensor: its largest error, the place and the two values there, and a diagnosis of the pattern of errors.

    For the directional methods `index` is the number of the direction, and the values are derivatives along it.

    verdict : "right"; "WRONG"; or "UNDECIDED": entries lie at a kink of the loss, with a value between the slopes on
        its two sides, or the rounding of the loss hides the error
    zero_bound : if the gradient is zero up to rounding, the size up to which values count as zero; else 0
    """

    name: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    vacuous: bool      # the numeric gradient is zero throughout, so nothing was tested
    norm_error: float      # |analytic - numeric| / |numeric|, Euclidean norms over the whole tensor
    verdict: str
    tolerance: float      # for `error`; that of central differences if they judge
    kinks: int      # number of entries whose slopes on the two sides differ, or that have one on one side only
    diagnosis: str
    note: str      # why central differences judge, or why the verdict is UNDECIDED
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
    """The reports of all tensors, and the rules that were broken (`check_pair`)."""

    method: str
    tolerance: float
    tensors: tuple[TensorReport, ...]
    violations: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Every tensor is right and no rule is broken.  UNDECIDED is not ok."""
        return not self.violations and self.verdict == "right"

    @property
    def verdict(self) -> str:
        """On all gradients: "WRONG" if a tensor is, else "UNDECIDED" if a tensor is, else "right"."""
        verdicts = {tensor.verdict for tensor in self.tensors}
        return next((verdict for verdict in ("WRONG", "UNDECIDED") if verdict in verdicts), "right")

    @property
    def worst(self) -> TensorReport:
        """The tensor with the largest error, among the wrong ones if there are any."""
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
