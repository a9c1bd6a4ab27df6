"""The page: paint examples in the browser, see results."""
