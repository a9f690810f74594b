"""One module for each measurement; its name says what is measured."""
