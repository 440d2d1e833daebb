"""Make the `data` group of lance_lightning known to every Hydra app."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class LanceLightningSearchPathPlugin(SearchPathPlugin):
    """Add the configs beside this file to Hydra's search path.

    They come last, so that an app's own option of the same name wins.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the package's configs to ``search_path``."""
        search_path.append(
            provider="lance-lightning",
            path="pkg://hydra_plugins.lance_lightning.conf",
        )
