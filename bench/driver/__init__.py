"""The parts of bench/run: what is measured (cases), how (worker), and how it is shown (report, plot)."""
