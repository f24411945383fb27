// Package house holds no code: its tests are the rules that this module keeps
// about its own shape. Each says why it is one.
package house
