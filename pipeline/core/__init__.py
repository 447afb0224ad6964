"""What every room needs: fingerprints, stage reports, progress, child processes, devices."""
