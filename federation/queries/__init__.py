"""Questions that are asked often, each as one SQL document with named parameters; `canned` reads and binds them."""
