class LambdaBertHubInterface: pass
