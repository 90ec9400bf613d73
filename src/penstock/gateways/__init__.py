"""What other machines say in forms of their own, translated: nothing is decided here."""
