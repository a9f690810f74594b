"""How it is measured, compared, printed and drawn; knows nothing of sessions."""
