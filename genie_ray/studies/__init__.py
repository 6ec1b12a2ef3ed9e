"""User studies: kits that people answer in a browser, and what their answers say."""
