"""`secondpass cc` and `secondpass c++`: a compiler driver that makes what it compiles for size smaller."""
