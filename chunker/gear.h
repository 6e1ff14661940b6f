/* gear64: the rolling sum hash.  Fast, keyed, and no defence against who can see chunk lengths. */
#ifndef HOLDFAST_GEAR_H
#define HOLDFAST_GEAR_H

#include "cdc.h"

cdc_scan_fn gear_scan;

#endif
