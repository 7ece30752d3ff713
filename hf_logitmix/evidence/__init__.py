"""What runs say together: their records, and whether one method is better than another."""
