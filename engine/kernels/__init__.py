"""One operation a file: a public function with its plain reference, and fast twins beside it."""
