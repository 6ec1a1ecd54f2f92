"""What learns and how: update schemes, losses, optimisers, learner settings, budgets."""
