package main

import (
	"errors"

	"github.com/pastenet/paste/bench/plot"
	"github.com/spf13/cobra"
)

func newPlotCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "plot MATRIX.json FILE",
		Short: "Draw what `bench matrix` has measured, as SVG, PNG or PDF",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.Join(errUsage, errors.New("want a matrix.json, and a file to write that ends in .svg, .png or .pdf"))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return plot.Matrix(args[0], args[1]) },
	}
}
