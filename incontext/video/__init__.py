"""Video: frames in and out, memory and its policies, the video predictor."""
