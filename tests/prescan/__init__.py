"""The technique `prescan`: its processor, its monitor, its machine."""
