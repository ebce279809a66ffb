"""Using a trained model: load its folder, predict from text, encode sentences; in Python and by `mtbert predict`."""
