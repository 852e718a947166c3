"""What all HTML pages have in common: where their templates lie, and that all is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment(package: str = "huggingtweets.publishing") -> Environment:
    """Return a fresh environment over a package's templates; a page adds its own filters."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
