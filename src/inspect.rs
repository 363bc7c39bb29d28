//! A page that shows all balancers of a process, and JSON beside it.
