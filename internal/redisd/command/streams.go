package command

func streamCommands() []Command { return nil }
func groupCommands() []Command  { return nil }
