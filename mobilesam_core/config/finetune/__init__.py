"""Reading the JSON configs of MobileSAM_Finetune: the flat one of its README, the nested ones of its repository."""
