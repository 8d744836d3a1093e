package cryptoblk

func assembly() []implementation { return nil }
