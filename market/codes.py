"""Resolves a typed name or code to our stock code by the stock master."""

from django.utils.translation import gettext

from aegis import codes
from market.models import Stock
from market.queries import canonical_codes


class ManyStocks(ValueError):
    """Several stocks have this name. `codes` are their codes."""

    def __init__(self, name: str, codes: list[str]) -> None:
        super().__init__(f"{name!r} is the name of {', '.join(codes)}: write the code")
        self.name = name
        self.codes = codes


def canonical(code: str) -> str:
    """Return the code of a stock in our master: 027360 for A027360, if the master has 027360."""
    return canonical_codes([code]).get(code, code)


def plain_name(text: str) -> str:
    """Return a typed name in the form of the master, except for capital letters."""
    return " ".join(codes.plain(text).split())


def resolve(text: str) -> str:
    """Return the code of a stock by its whole name or its code.

    Names are tried first: SIMPAC and E1 are names. Raises codes.NotACode, or ManyStocks if several stocks share it.
    """
    if name := plain_name(text):
        codes_by_name = sorted(Stock.objects.filter(name__iexact=name).values_list("pk", flat=True))
        if len(codes_by_name) > 1:
            raise ManyStocks(name, codes_by_name)
        if codes_by_name:
            return codes_by_name[0]
    return canonical(codes.normalise(text))


def explain(error: ValueError) -> str:
    """Return why `resolve` refused a name or a code, in the operator's language."""
    if isinstance(error, ManyStocks):
        template = gettext("{name!r} is the name of several stocks ({codes}): write the code")
        return template.format(name=error.name, codes=", ".join(error.codes))
    if isinstance(error, codes.NotACode):
        return gettext(codes.NOT_A_CODE).format(code=error.value)
    raise error
