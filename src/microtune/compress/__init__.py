"""Graphs made smaller: folding now; quantisation, pruning and distillation have their rooms here."""
