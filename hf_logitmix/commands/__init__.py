"""The console command and what it calls."""
