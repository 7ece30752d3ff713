"""The Hub: cards, what a saved model tells, and what is pushed."""
