"""The receiver of the platform's callbacks: stores first, answers fast, acts on nothing."""
