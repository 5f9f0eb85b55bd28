package pasteapi

import (
	"context"
	"errors"
	"os"
)

// ListPorts returns the Ports that are open in the calling thread's network namespace,
// in the order of their NICs' names, and then those without a NIC. A Port that did not
// answer is left out; the error, beside the others, says why.
func ListPorts(ctx context.Context) ([]LivePort, error) {
	nics, err := listeners(controlPrefix)
	if err != nil {
		return nil, err
	}
	names, err := listeners(portPrefix)
	if err != nil {
		return nil, err
	}
	named, err := askAll(nics, func(nic string) (LivePort, error) { return queryNIC(ctx, nic) })
	others, errOthers := askAll(names, func(name string) (LivePort, error) {
		p, err := queryPort(ctx, portPrefix+name, "port "+name)
		if err == nil && p.Status.NIC != "" {
			err = os.ErrNotExist // it has got a NIC meanwhile, and answers there
		}
		return p, err
	})
	return append(named, others...), errors.Join(err, errOthers)
}

// askAll returns the ports that answer.
func askAll(names []string, query func(name string) (LivePort, error)) (ports []LivePort, err error) {
	var errs []error
	for _, name := range names {
		p, err := query(name)
		switch {
		case err == nil:
			ports = append(ports, p)
		case !errors.Is(err, os.ErrNotExist): // it ended meanwhile
			errs = append(errs, err)
		}
	}
	return ports, errors.Join(errs...)
}
