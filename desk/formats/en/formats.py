from desk.formats.ko.formats import *  # noqa: F403 both languages write figures alike
