package caps

// WithCapset is With and a capset that may fail.
var WithCapset = with

// ReadBack is the check by which Drop and Limit verify what they did.
func ReadBack(keep Set) error {
	all, err := threads()
	if err != nil {
		return err
	}
	return remains(all, keep, true)
}

// Names is how many capabilities have one.
const Names = len(names)
