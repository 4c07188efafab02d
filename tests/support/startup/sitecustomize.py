"""Python imports this module in every child process of the tests, before anything else.

Workers run as where Astrocyte is installed: without pandas, which only the tests need. pyarrow would import it in each
of them as soon as it makes an array of a list, which takes half a second and 40 MB.
"""

import sys


class WithoutPandas:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError("pandas is kept from the workers of the tests", name=name)


if "faust" in sys.orig_argv:
    sys.meta_path.insert(0, WithoutPandas)
