"""The shell: the one place where effects run. A supplier and a consumer on real links, journals and ledgers."""
