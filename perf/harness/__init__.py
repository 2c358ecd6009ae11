"""The load-test harness behind `perf/run`. Standard library only; it installs nothing."""
