// Package layers holds the test of the house's plan: which package stands on
// which floor, who may use which library, and what no file may say. It has no
// code of its own.
//
// A package imports lower floors only. To add a package, give its room a floor
// in the table of layers_test.go; a subpackage stands in its parent's room.
package layers
