"""Studies, each started by `python -m loadtests.studies.NAME`."""
