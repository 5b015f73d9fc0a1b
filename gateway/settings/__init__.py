"""What an operator can set. `table` has every setting, `values` the frozen `Settings` and how they are read,
`conflicts` what settings say about one another. How a text becomes a value is in `gateway.parsing` and
`gateway.addresses`; no other module reads the environment."""

from gateway.settings.table import SETTINGS, Setting
from gateway.settings.values import Settings, SettingsError

__all__ = ["SETTINGS", "Setting", "Settings", "SettingsError"]
