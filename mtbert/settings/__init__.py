"""Typed models of all settings. `mtbert.params` reads them from params.yaml; plan files hold them resolved."""
