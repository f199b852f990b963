"""Where RLHF came from: feedback that shapes an agent in a Gymnasium task."""
