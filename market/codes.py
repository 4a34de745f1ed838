"""The stock that a typed text means, by the stock master: the code of a name, and our code of the broker's own."""

from django.utils.translation import gettext

from aegis import codes
from market.models import Stock
from market.queries import canonical_codes


class ManyStocks(ValueError):
    """A name that several stocks have: `codes` are theirs."""

    def __init__(self, name: str, found: list[str]) -> None:
        super().__init__(f"{name!r} is the name of {', '.join(found)}: write the code")
        self.name = name
        self.codes = found


def canonical(code: str) -> str:
    """Return the code by which our master knows a stock: 027360 for A027360, if the master has it."""
    return canonical_codes([code]).get(code, code)


def plain_name(text: str) -> str:
    """Return a typed name as the master writes it, but for its capitals."""
    return " ".join(codes.plain(text).split())


def resolve(text: str) -> str:
    """Return the code of a stock by its whole name or its code.

    The name comes first: SIMPAC and E1 are names. Raises codes.NotACode, and ManyStocks if several have that name.
    """
    if name := plain_name(text):
        named = sorted(Stock.objects.filter(name__iexact=name).values_list("pk", flat=True))
        if len(named) > 1:
            raise ManyStocks(name, named)
        if named:
            return named[0]
    return canonical(codes.normalise(text))


def explain(error: ValueError) -> str:
    """Return what is wrong with a name or a code that `resolve` refused, in the operator's language."""
    if isinstance(error, ManyStocks):
        words = gettext("{name!r} is the name of several stocks ({codes}): write the code")
        return words.format(name=error.name, codes=", ".join(error.codes))
    if isinstance(error, codes.NotACode):
        return gettext(codes.NOT_A_CODE).format(code=error.value)
    raise error
