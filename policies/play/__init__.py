"""Playing by what others train or trained: fragments for a learner, whole episodes of a policy that is done."""
