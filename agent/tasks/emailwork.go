package tasks

func emailError(err error) error { return err }
