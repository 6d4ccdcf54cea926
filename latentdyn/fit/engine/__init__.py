"""What every fit by gradient shares: data in, steps, checkpoints, results out."""
