"""Its place lets tests of the folders below import the helpers beside it, such as `made_up_families`."""
