"""The slips: what `mutation.py` changes in a syntax tree, one place at a time.

An operator takes a place, a node of the tree with its surroundings, and generates replacements for the node.
"""
import ast
from collections.abc import Iterator
from typing import Any


class Place:
    """A node, where it hangs in its parent, and what stands above it, from the function or statement down."""

    def __init__(self, node: Any, above: tuple[Any, ...], field: str, at: int | None, module: ast.Module) -> None:
        self.node, self.above, self.field, self.at, self.module = node, above, field, at, module
        self.unit, self.parent = above[0], above[-1]
        self.surroundings = self.largest()

    def put(self, node: Any) -> None:
        if self.at is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.at] = node

    def largest(self) -> Any:
        """The largest expression around the node that has at most 60 characters; None for the node itself."""
        found = None
        for node in self.above[::-1] if not isinstance(self.node, ast.stmt) else ():
            if isinstance(node, (ast.FunctionDef, ast.comprehension, ast.arguments)) or len(head(node)) > 60:
                break
            found = node
            if isinstance(node, ast.stmt):
                break
        return found

    def shown(self) -> str:
        """The node as it is now, in its surroundings."""
        if self.field == "defaults":
            given = [*self.parent.posonlyargs, *self.parent.args][-len(self.parent.defaults):]
            return f"{given[self.at].arg}={ast.unparse(self.parent.defaults[self.at])}"
        now = getattr(self.parent, self.field)
        return head(self.surroundings or (now if self.at is None else now[self.at]))


def head(node: ast.AST) -> str:
    """The source of an expression or a short statement, the first line of a long one."""
    return ast.unparse(node).split("\n")[0]


def changed(node: Any, **fields: Any) -> Any:
    """A copy of a node with some fields replaced."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def swapped(items: list[Any], allowed: Any = lambda a, b: True) -> Iterator[list[Any]]:
    """The list with two neighbours exchanged."""
    for i, (a, b) in enumerate(zip(items, items[1:])):
        if allowed(a, b):
            yield [*items[:i], b, a, *items[i + 2:]]


def number(value: float) -> ast.expr:
    constant = ast.Constant(abs(value))
    return ast.UnaryOp(ast.USub(), constant) if value < 0 else constant


def is_number(node: Any) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def is_text(node: Any) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def called(node: Any) -> str:
    """The last name of what a call calls, "" for anything else."""
    return ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""


# --- the operators ---

ARITHMETIC = {ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add, ast.Mult), ast.Mult: (ast.Div, ast.Add),
              ast.Div: (ast.Mult, ast.Sub), ast.Pow: (ast.Mult, ast.Div), ast.Mod: (ast.Mult, ast.FloorDiv),
              ast.FloorDiv: (ast.Div, ast.Mult), ast.BitOr: (), ast.BitAnd: (),
              ast.MatMult: ()}


def arithmetic(place: Place) -> Iterator[Any]:
    """Another operator; one side forgotten; the sides exchanged where order matters, which in |a - b| it does not."""
    node = place.node
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        for operator in ARITHMETIC[type(node.op)]:
            yield changed(node, op=operator())
    if isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
        if (isinstance(node.op, (ast.Sub, ast.Div, ast.Pow, ast.FloorDiv, ast.Mod))
                and not (isinstance(node.op, ast.Sub) and called(place.parent) in EVEN)):
            yield changed(node, left=node.right, right=node.left)


EVEN = {"abs", "square", "norm", "isinf", "shape", "any", "all"}
SIGNLESS = {"empty", "empty_like", "full_like", "isfinite", "isnan", "array_equal"}


def sign(place: Place) -> Iterator[Any]:
    """A minus too few, or one too many before what is assigned, returned, or given to a NumPy function."""
    node, parent = place.node, place.parent
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.Call, ast.Name, ast.Subscript)):
        numeric = isinstance(node, ast.BinOp) or ast.unparse(node).startswith(("np.", "math."))
        assigned = place.field == "value" and isinstance(parent, (ast.Assign, ast.AugAssign, ast.Return)) and (
            numeric or getattr(place.unit, "name", "").endswith(("forward", "backward")))
        given = place.field == "args" and ast.unparse(parent.func).startswith(("np.", "math."))
        if ((assigned or given) and not {called(node), called(parent)} & SIGNLESS
                and not (given and called(parent) in EVEN)):
            yield ast.UnaryOp(ast.USub(), node)


COMPARISON = {ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt),
              ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq, ast.Lt), ast.Is: (ast.IsNot,),
              ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,)}


def comparison(place: Place) -> Iterator[Any]:
    node = place.node
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in COMPARISON[type(operator)]:
                yield changed(node, ops=[*node.ops[:i], other(), *node.ops[i + 1:]])


def condition(place: Place) -> Iterator[Any]:
    """Negated, always, never; `and` for `or`, and a part forgotten; one branch of a choice taken always."""
    node = place.node
    if place.field in ("test", "ifs"):
        yield from (ast.UnaryOp(ast.Not(), node), ast.Constant(True), ast.Constant(False))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    if isinstance(node, ast.BoolOp):
        yield changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for i in range(len(node.values)):
            yield changed(node, values=[*node.values[:i], *node.values[i + 1:]])
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    if called(node) == "where":
        yield from node.args[1:]


def constant(place: Place) -> Iterator[Any]:
    """c + 1, c - 1, -c, 2 c, c / 2; True for False."""
    value = place.node.value if isinstance(place.node, ast.Constant) else None
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif is_number(place.node):
        more = (value - 1,) if isinstance(value, int) else (2 * value, value / 2)
        axis = isinstance(place.parent, ast.keyword) and place.parent.arg == "axis" or place.field == "slice"
        minus = () if axis or isinstance(place.parent, ast.UnaryOp) else (-value,)      # 1 and -1 may be one axis
        for other in dict.fromkeys((value + 1, *more, *minus)):
            yield number(other)


FUNCTIONS = {
    "exp": "expm1", "expm1": "exp", "log": "log1p", "log1p": "log", "tanh": "arctan", "sum": "mean", "mean": "sum",
    "argmax": "argmin", "argmin": "argmax", "max": "min", "min": "max", "cos": "sin", "add": "subtract",
    "subtract": "add", "multiply": "divide", "less": "less_equal", "logaddexp": "maximum", "zeros": "ones",
    "sqrt": "square", "normal": "uniform", "standard_normal": "random", "random": "standard_normal", "any": "all",
    "all": "any", "isfinite": "isnan", "matmul": "add", "full_like": "empty_like"}
IDENTITY = {"exp", "expm1", "log", "log1p", "tanh", "sqrt", "cos", "sorted", "set", "reversed", "min", "max", "clip",
            "sum", "where", "zeros_like", "full_like", "bool", "float"}
SYMMETRIC = {"add", "multiply", "logaddexp", "min", "max", "minimum", "maximum", "may_share_memory", "shares_memory",
             "array_equal", "_equal", "_near"}
METHODS = {"copy", "sum", "item", "astype"}


def function(place: Place) -> Iterator[Any]:
    """A function of the same kind, or none: f(x) -> x; a method forgotten: x.copy() -> x."""
    node = place.node
    name = called(node)
    if name in FUNCTIONS and not (isinstance(node.func, ast.Name) and name == "sum"):
        other = FUNCTIONS[name]
        yield changed(node, func=changed(node.func, attr=other) if isinstance(node.func, ast.Attribute)
                      else ast.Name(other, ast.Load()))
    if name in IDENTITY and not isinstance(place.parent, ast.Expr):
        yield from node.args[:2] if name in ("min", "max") else node.args[:1]
    if name in METHODS and isinstance(node.func, ast.Attribute) and not ast.unparse(node.func).startswith("np."):
        yield node.func.value


def argument(place: Place) -> Iterator[Any]:
    """Neighbours exchanged; the last or a keyword forgotten; another's text, as in `MLP("decoder")` for "encoder"."""
    node = place.node
    if isinstance(node, ast.Call):
        if called(node) not in SYMMETRIC:
            for args in swapped(node.args, lambda a, b: (not isinstance(a, ast.Constant) or is_number(a))
                                and not (called(node) == "clip" and a is node.args[0])):      # the middle one of three
                yield changed(node, args=args)
        if len(node.args) > 1 and ast.unparse(node.func).startswith("np."):
            yield changed(node, args=node.args[:-1])
        if called(node) != "SimpleNamespace":
            for i in range(len(node.keywords)):
                yield changed(node, keywords=[*node.keywords[:i], *node.keywords[i + 1:]])
        if node.args and is_text(node.args[0]):
            texts = list(dict.fromkeys(call.args[0].value for call in ast.walk(place.unit)
                                       if called(call) == called(node) and call.args and is_text(call.args[0])))
            following = texts[(texts.index(node.args[0].value) + 1) % len(texts)]
            yield changed(node, args=[ast.Constant(following), *node.args[1:]])


def order(place: Place) -> Iterator[Any]:
    """Neighbours exchanged in a tuple (not after `in`), a list, a dictionary's values; `[:, None]` for `[None, :]`."""
    node = place.node
    if isinstance(node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Load) and place.field != "comparators":
        for elements in swapped(node.elts):
            yield changed(node, elts=elements)
    if isinstance(node, ast.Dict):
        for values in swapped(node.values):
            yield changed(node, values=values)


def index(place: Place) -> Iterator[Any]:
    """Off by one; the other side of a slice, `:n` for `n:`; the whole for a slice."""
    node, one = place.node, ast.Constant(1)
    if isinstance(node, ast.Slice):
        yield changed(node, lower=node.upper, upper=node.lower)
        for side in ("lower", "upper", "step"):
            if getattr(node, side) is not None:
                yield changed(node, **{side: None})
    elif isinstance(node, (ast.Name, ast.BinOp, ast.Call)) and (
            place.field in ("lower", "upper") or called(place.parent) in ("range", "slice") and place.field == "args"
            or place.field == "slice" and isinstance(node, ast.BinOp)):
        yield from (ast.BinOp(node, ast.Add(), one), ast.BinOp(node, ast.Sub(), one))


ATTRIBUTES = {"T", "real"}
PAIRS = [
    ("mu", "logvar"), ("dmu", "dlogvar"), ("z", "eps"), ("dz", "z"), ("encoder", "decoder"), ("m", "v"), ("W", "b"),
    ("beta1", "beta2"), ("nll", "reg"), ("dnll", "dreg"), ("mu_kl", "logvar_kl"), ("encoder_pre", "decoder_pre"),
    ("mu_pre", "logvar_pre"), ("kl", "log_ratio"), ("parameters", "gradients"), ("hidden", "decoder_hidden"),
    ("input_dim", "latent_dim"), ("z_kl", "z"), ("mu_kl", "mu"), ("logvar_kl", "logvar"), ("h_mu", "h_logvar"),
    ("h_mu", "encoder"), ("z_kl", "z_nll"), ("z_nll", "z"), ("mu_z", "mu_kl"), ("mu_z", "mu"), ("mu_z", "logvar_z"),
    ("logvar_z", "logvar_kl"), ("logvar_z", "logvar"),
    ("output", "kept"), ("activation_forward", "activation_backward"), ("steps", "beta"), ("x", "output")]
PARTNERS = {a: [b for pair in PAIRS for b in pair if a in pair and a != b] for pair in PAIRS for a in pair}


def name(place: Place) -> Iterator[Any]:
    """Another variable or attribute of the same function; `.T`, `.real` forgotten."""
    node = place.node
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and not asks_shape(place):
        family = next((family for family in families(place.unit, node.lineno) if node.id in family), [])
        at = family.index(node.id) if family else 0
        for other in dict.fromkeys((*family[at + 1:at + 2], *family[max(at - 1, 0):at],
                                    *(partner for partner in PARTNERS.get(node.id, ()) if partner in family))):
            yield ast.Name(other, node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
        yield node.value
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and place.field != "func":
        known = {ast.unparse(other) for other in ast.walk(place.module) if isinstance(other, ast.Attribute)}
        for other in PARTNERS.get(node.attr, ()):
            if f"{node.value.id}.{other}" in known:
                yield changed(node, attr=other)


def asks_shape(place: Place) -> bool:
    """In len(a), len(a[rows]), a.shape, a.size another array of the same shape would do."""
    above = next(node for node in place.above[::-1] if not isinstance(node, ast.Subscript))
    return called(above) == "len" or getattr(above, "attr", "") in ("shape", "ndim", "size", "dtype")


def families(unit: Any, line: int) -> list[list[str]]:
    """Names that could stand for each other: parameters of one type; with arrays, what was assigned by that line."""
    found: dict[str, list[str]] = {"array": [], "size": [], "loop": []}
    if isinstance(unit, ast.FunctionDef):
        for arg in [*unit.args.args, *unit.args.kwonlyargs]:
            kind = ast.unparse(arg.annotation) if arg.annotation else ""
            found.setdefault("array" if "Array" in kind else kind, []).append(arg.arg)
        for node in ast.walk(unit):
            if isinstance(node, (ast.Assign, ast.For)) and node.lineno < line:
                for target in ast.walk(node.target if isinstance(node, ast.For) else ast.Tuple(node.targets)):
                    if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store) and target.id != "_":
                        kind = "loop" if isinstance(node, ast.For) else "size" if target.id.isupper() else "array"
                        found[kind].append(target.id)
    return [list(dict.fromkeys(names)) for names in found.values()]


def statement(place: Place) -> Iterator[Any]:
    """Left out, unless a name would then be missing; `=` for `+=`."""
    node = place.node
    if isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value)
    writes = isinstance(node, ast.Assign) and not any(isinstance(target, ast.Name) for target in node.targets)
    if writes or isinstance(node, ast.AugAssign) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


OPERATORS = (arithmetic, sign, comparison, condition, constant, function, argument, order, index, name, statement)
