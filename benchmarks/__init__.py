"""Programs that time the product, on the real 8B shapes on a GPU and at demo size on a CPU."""
